namespace bireme {}
