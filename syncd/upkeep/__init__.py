"""Looking after what is configured and backed up: is it reachable, is it whole, can it be had back? Refuses to decide what a Run does."""
