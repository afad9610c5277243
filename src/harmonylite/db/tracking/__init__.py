"""Our objects in the application's file: triggers, change log, watermarks, and the tables that they track."""
