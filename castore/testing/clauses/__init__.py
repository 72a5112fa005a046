"""The clauses of the contract, one module for each subject."""
