"""The producer: reads orders and asks for a mail to each customer and a sales report for each region."""
