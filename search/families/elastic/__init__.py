"""An elastic convolutional supernet in the spirit of Once-for-All (Cai et al., ICLR 2020, arXiv:1908.09791)."""
