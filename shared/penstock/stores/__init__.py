"""Stores by the database they keep their records in; each is imported only when it is used."""
