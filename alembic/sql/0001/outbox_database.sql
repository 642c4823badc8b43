-- Returns what tells this database from others that have the same tables: copies of it have another oid.
CREATE FUNCTION {schema}.outbox_database() RETURNS text
LANGUAGE plpgsql STABLE
SECURITY DEFINER  -- for those who may only publish
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT l.database || '/' || d.oid FROM {schema}.log AS l, pg_database AS d WHERE d.datname = current_database());
END
$$
