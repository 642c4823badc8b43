-- Removes what publish_row_changes() has made; an error if there is nothing of that name.
CREATE FUNCTION {schema}.stop_row_changes(published regclass, name text DEFAULT 'pgchannels_row_changes') RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', name || '_truncate', published);
    EXECUTE format('DROP TRIGGER %I ON %s', name, published);
END
$$
