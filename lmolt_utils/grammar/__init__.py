"""One grammar of L+M-24's captions, used to write captions from property sets and to read property sets out of them."""
