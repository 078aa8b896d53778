"""The leaderboard as static pages: ``write.write(store, registries, Path("public"))``, then open ``public/index.html``.

``runs`` reads every record once, ``leaderboard``, ``figures``, ``methods``, ``growth``, ``changes`` and ``statements`` turn what it found
into what pages show, ``write`` fills the templates. A page needs no server and no network. Records are untrusted: templates escape
everything, scripts set text and never markup, and the policy of each page forbids scripts that are not files of the site.
"""
