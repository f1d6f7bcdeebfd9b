"""Work done by the hubs' own client libraries, in a process of its own."""
