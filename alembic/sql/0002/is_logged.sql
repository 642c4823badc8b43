-- Whether a slot outlives a crash.
CREATE FUNCTION {schema}.is_logged(slot smallint) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT relpersistence = 'p' FROM pg_class WHERE oid = format('{schema}.message_%s', slot)::regclass);
END
$$
