"""The reports service: orders or a database in, a PDF, a CSV or a workbook out."""
