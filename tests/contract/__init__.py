"""What every Backend and every Storage must do, whatever it drives."""
