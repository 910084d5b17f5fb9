"""What linear and kernel methods share: anchors, rotations, similarities."""
