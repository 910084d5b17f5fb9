"""Arrays that may be larger than memory: in files, made part by part, and never half of one."""
