"""What people upload, made fit for the platform: sound and pictures, checked by content and within its limits."""
