"""What people look at: tables on a terminal, figures, live progress. Made from run folders alone."""
