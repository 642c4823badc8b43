"""A backend that is named after nobody's database, and asks for a new password each time, as those for IAM do."""
