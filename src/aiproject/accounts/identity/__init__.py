"""Who a request comes from: credentials in, a principal out."""
