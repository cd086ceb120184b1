"""The demo: the whole system on one machine, real jobs, honest trouble, and an account of every one of them."""
