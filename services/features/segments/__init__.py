"""Segments: named conditions over what is known of profiles, and who meets them."""
