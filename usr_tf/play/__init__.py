"""Play: a local web page that ranks for a user of a shop's logs, live, by served models and what they compare with.

Read `playground` (what the page may ask), then `logged_shop`, `retrieval` and `scorers` (what answers), and `web` (the
HTTP server; `page/` is what the browser gets).
"""

from usr_tf.play.playground import Playground
from usr_tf.play.web import serve_page

__all__ = ["Playground", "serve_page"]
