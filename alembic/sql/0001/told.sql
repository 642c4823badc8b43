-- A message as a notification tells it, behind the address. Without a path to set: it is parsed when it is made.
CREATE FUNCTION {schema}.told(id bigint, channel text, payload bytea) RETURNS text
LANGUAGE sql STABLE
RETURN ' ' || id || ' ' || coalesce(channel, '') || ' ' ||
       CASE WHEN octet_length(payload) > 5500 THEN '' ELSE encode(payload, 'base64') END
