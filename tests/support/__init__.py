"""What several suites need: waits, proxies, programs, servers, browsers, Django projects, snippets of the pages."""
