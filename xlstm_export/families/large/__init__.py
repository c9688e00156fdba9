"""What the two families of the xLSTM-7B architecture share."""
