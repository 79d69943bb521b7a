"""What Berth remembers: the only SQL. Stores take and return the model's records; rows never leave."""
