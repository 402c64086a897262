"""The event log as a transparency log: Merkle tree, tiles, signed checkpoints, proofs; its export and verification."""
