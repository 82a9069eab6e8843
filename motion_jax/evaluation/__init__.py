"""What a frozen encoder's features are good for."""
