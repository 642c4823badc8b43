-- Removes nodes with everything that they hosted, and ends the sessions in which they listened.
-- One statement after the other: each sees what was committed before it.
CREATE FUNCTION {schema}.remove_nodes(nodes uuid[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    gone record;
BEGIN
    FOR gone IN DELETE FROM {schema}.node WHERE id = ANY (nodes) RETURNING pid, session_began_at LOOP
        PERFORM {schema}.end_session(gone.pid, gone.session_began_at);
    END LOOP;
    DELETE FROM {schema}.lease WHERE node = ANY (nodes);
    DELETE FROM {schema}.subscription WHERE node = ANY (nodes);
    DELETE FROM {schema}.full_channel WHERE node = ANY (nodes);
END
$$
