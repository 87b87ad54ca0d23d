garbage here
