"""The sum of clipped per-example gradients: book-keeping, Opacus or torch.func."""
