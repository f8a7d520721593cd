package pglog

// rights refuses a role that is no superuser. The rights that can be granted one by one do not add up to what a partner
// does: the database that it closes lets in superusers only, so a lesser role could not open it again.
func (e *examination) rights() {
	e.each(Fatal, CodeRights, `SELECT quote_ident(rolname), 'the role is no superuser: it would be shut out of the database that '
			|| 'it closes, and cannot end a superuser''s session, publish all tables or read the server''s files of settings',
			format('ALTER ROLE %I SUPERUSER', rolname)
		FROM pg_roles WHERE rolname = current_user AND NOT rolsuper`)
}
