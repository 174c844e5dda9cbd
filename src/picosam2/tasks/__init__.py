"""What is made of many predictions: everything mode and tracking."""
