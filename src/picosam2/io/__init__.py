"""Files that come in and go out: mask formats, prompt files, videos."""
