"""What a bundle is on disk: its manifest and the digests of its files."""
