"""Published methods that no package here has, written plainly from their papers.

Each takes content and style as (1, 3, H, W), RGB in 0..1, and returns the picture in the same form,
at the size of the content. Where a paper names VGG-16, they use the layers of the same name of
VGG-19, in the precision that the device multiplies fastest.
"""
