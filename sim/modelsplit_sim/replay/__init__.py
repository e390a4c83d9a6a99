"""Replay: calls, recorded or made up, against a policy and a host in virtual time.

Nothing here reads a clock, a file or a socket; the policy's own code decides.

    trace, azure, workload   what is replayed: a recording, another's format, a shipped mix
    demand, survival         from a recording to what each client wants, drawn where it ended early
    clients                  who sends calls: when, again, and until when they wait
    proxy, watch, attempt    everything that decides, driven in virtual time
    line                     what lets calls in: admission, or plain caps, which it is compared with
    direct                   no proxy: what it is compared with
    run                      one run from its first call to its last
    measures, compare        from runs to figures, and from two policies to differences
"""
