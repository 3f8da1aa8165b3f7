"""Jobs: the schema, running them, their outputs, the command line."""

from .job import Job, parse_job, read_job

__all__ = ["Job", "parse_job", "read_job"]
