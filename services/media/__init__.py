"""The media service: videos transcoded, their thumbnails, and images resized."""
