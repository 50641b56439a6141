"""OpenVZ and Virtuozzo 7: ``CTID.conf``, ``ve-NAME.conf-sample`` and the global ``vz.conf``.

Source: ctid.conf(5), vz.conf(5), vzctl(8).
"""
