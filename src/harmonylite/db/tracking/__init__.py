"""What the application's file holds of ours: triggers, change log, watermarks, and the tables they track."""
