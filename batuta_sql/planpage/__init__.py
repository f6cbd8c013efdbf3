"""A plan as one self-contained page."""

from batuta_sql.planpage.page import Picture, page

__all__ = ["Picture", "page"]
