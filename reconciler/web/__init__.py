"""HTTP both ways: a forge's word that there is something new, and ours to people and forges."""
