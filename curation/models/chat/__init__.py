"""Vision-language models that answer a prompt about a picture: any server's, or weights in a folder."""
