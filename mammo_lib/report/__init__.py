"""The whole report by one command: every notebook in order with papermill, then the book; and its rehearsal.

Finished notebooks are kept in ``book/notebooks``. A notebook runs again only if its
source, its parameters, the library, the protocol, the profile or the data have changed, so a
killed reproduction resumes. A failed notebook never replaces a good page.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "book": ["build_book"],
        "execution": ["run_chapters"],
        "outcomes": ["progress_line"],
        "steps": ["DEFAULT_BOOK", "plan"],
        "summary": ["describe_as_crate", "start_summary", "write_summary"],
    },
)
