"""The mailer: renders mails from templates and hands them to an SMTP server."""
