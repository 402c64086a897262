"""The log of events as a transparency log: Merkle tree, tiles, signed checkpoints, proofs."""
