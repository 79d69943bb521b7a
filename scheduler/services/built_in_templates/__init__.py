"""Templates of pods that come with Berth, one file each. A definition that was released is never changed: a newer one
with a later ``created_at`` goes before it, and pods that were made from the older keep it."""
