-- Lets a node be notified of messages to a queue only while it has a token there, and no longer of every message.
CREATE FUNCTION {schema}.take_turns(queue text, node_name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this_node uuid;
BEGIN
    SELECT n.id INTO this_node FROM {schema}.node AS n WHERE n.name = node_name;
    UPDATE {schema}.subscription AS s SET takes_turns = true
    WHERE s.address = queue AND s.node = this_node AND NOT s.takes_turns;
END
$$
