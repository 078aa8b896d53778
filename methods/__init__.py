"""Methods of training spiking networks, one file each; ``methods.nn`` holds the parts they are made of."""
