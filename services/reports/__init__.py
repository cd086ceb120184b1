"""The reports service: a region's orders in, a PDF and a CSV out."""
